"""The command line. Each verb lives in a module that is imported only when the verb is used."""
