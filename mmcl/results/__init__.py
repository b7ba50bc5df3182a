"""Results and tables as data: what runs left behind, what papers printed, and the two joined. No torch in here."""
