"""What comes with the code: the wheel, the site, containers, examples, and what changed."""
