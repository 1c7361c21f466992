"""Weights in and out: tables of bijections between our parameters and other programs' tensors."""
