"""Will a flight out of New York arrive late? An example project for Lockgate."""
