"""The record that every stage leaves of itself: what it read, ran and wrote."""
