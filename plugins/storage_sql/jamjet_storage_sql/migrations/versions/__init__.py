"""The steps. A step never changes once it was released, so it says what it does in words of its own."""
