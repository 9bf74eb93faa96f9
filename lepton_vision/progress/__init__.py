"""What a person sees while a call runs: the doorway to rich for every stage."""
