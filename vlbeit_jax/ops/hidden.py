"""The logit of what attention must not see."""

# Its weight is 0, to the last bit. Minus infinity would give NaN in a row without valid keys, such
# as a text that is all padding.
HIDDEN = -1e30
