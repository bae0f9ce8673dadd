"""A page to play with: a prompt, the dial, the decision, both answers, and what it all costs."""
