"""Rows of what a user can get wrong, by where; test_bad_inputs.py runs them."""
