"""Records at true size on one GPU, in steps of minutes: README.md beside this says in which order."""
