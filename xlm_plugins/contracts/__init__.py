"""What plugin authors implement, and the types that their code is called with."""
