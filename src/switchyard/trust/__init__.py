"""Which images may become a release: where they come from, who signed them, and what a scanner found in them."""
