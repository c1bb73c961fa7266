"""A queue shared by many processes: ordered lanes, leases with fencing, dead letters. Knows nothing of Telegram."""
