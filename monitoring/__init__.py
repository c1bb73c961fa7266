"""What operators see: metrics, health, logs. Hears of the queue through events, never through the bot."""
