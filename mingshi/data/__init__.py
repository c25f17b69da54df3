"""From files to encoded samples: read, split, mix, encode, plan. Each module stands alone; import what you need."""
