"""What is kept in a database: subscriptions, balances, closed candles and gaps."""
