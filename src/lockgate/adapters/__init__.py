"""Everything outside. Each folder holds one kind of technology and knows no other; delete one, delete a folder."""
