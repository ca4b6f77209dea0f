"""Spring Boot's actuator: health, info, conditions, prometheus."""
