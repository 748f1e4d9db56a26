"""AMQP 0-9-1, as RabbitMQ speaks it: the kind of sink `amqp` (`publish`) and the service `amqp_in` (`consume`), which
raises events that come from a queue. `broker` is what both have in common."""
