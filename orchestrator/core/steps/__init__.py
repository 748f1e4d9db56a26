"""What flows can ask for: who performs which effect, on what a run serves."""
