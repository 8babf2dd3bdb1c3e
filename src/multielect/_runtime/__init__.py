"""What Python and the operating system give: clock, threads, texts of objects."""
