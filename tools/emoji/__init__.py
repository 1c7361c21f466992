"""The emoji data set: how it was made, and how it is divided into folds."""
