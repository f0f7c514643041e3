"""Everything that remembers: tables, analysis and the verdict. Never decides what the cluster does."""
