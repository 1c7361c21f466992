"""Weights in and out: tables of rules between our parameters and other programs' tensors."""
