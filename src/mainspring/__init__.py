"""Mainspring: Spring Boot for AI infrastructure."""
