"""The answer: statistics over the grid, figures and the page."""
