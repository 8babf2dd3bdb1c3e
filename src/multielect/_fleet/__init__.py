"""Who is a member of a balanced fleet, and which elections each member is to lead."""
