"""The job as a Dramatiq actor. As a program: publishes (see noop.publish)."""
import dramatiq
from dramatiq.brokers.rabbitmq import RabbitmqBroker

import noop

# Its messages and queues are durable, and it acknowledges when a job is done. Confirms are asked for here.
broker = RabbitmqBroker(url=noop.URL, confirm_delivery=True)
dramatiq.set_broker(broker)


@dramatiq.actor(queue_name=noop.QUEUE, actor_name="noop")
def work(sent, padding):
    noop.ran(sent)


if __name__ == "__main__":
    noop.publish(lambda sent: work.send(sent, noop.PADDING))
