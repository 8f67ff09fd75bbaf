"""The indexes of a gallery: one for each slot, built, kept up and measured."""
