"""Policy evaluation: how far a score in a generated world tells the score in the rendered one."""
