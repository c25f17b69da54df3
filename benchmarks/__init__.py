"""Side-by-side measurements against other libraries; `notes/` holds what was measured, dated."""
