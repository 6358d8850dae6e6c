"""Class vocabulary and prompt strategies."""
