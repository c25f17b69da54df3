"""A text in both languages of the house."""

from __future__ import annotations

from typing import NamedTuple

from markupsafe import Markup

from mingshi.report.marks import visible_html


class Both(NamedTuple):
    """One text in both languages of the house."""

    en: str
    zh: str

    def html(self) -> Markup:
        """Both texts, escaped; a rule of the page's style shows one of them."""
        if self.en == self.zh:
            return visible_html(self.en)
        return Markup('<span class="en" lang="en">{}</span><span class="zh" lang="zh-CN">{}</span>').format(
            visible_html(self.en), visible_html(self.zh)
        )
