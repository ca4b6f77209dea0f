"""From the project to where it runs: images, and what is rendered for each target."""
