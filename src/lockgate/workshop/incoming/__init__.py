"""What comes into a project from elsewhere: packages that were not trained here."""
