"""How fast things are: measurements that a user can repeat on other hardware."""
