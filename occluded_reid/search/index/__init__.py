"""An index of one slot: the interface, FAISS behind it, the strings that make one, and packed rows."""
