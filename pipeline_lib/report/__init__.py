"""Leaderboard, figures and the HTML report."""
