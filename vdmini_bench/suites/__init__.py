"""What each kind of suite is: what it needs, which jobs it has, what it asks models for."""
