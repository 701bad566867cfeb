"""Reading logs; tables and figures of them."""
