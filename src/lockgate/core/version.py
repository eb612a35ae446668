"""The version of Lockgate itself; the one place where it stands in the code."""

VERSION_OF_LOCKGATE = "0.3.0"
