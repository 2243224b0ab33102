"""Episodes, and what training draws from them."""
