"""The job as a Celery task. As a program: publishes (see noop.publish)."""
import os

import celery
import kombu

import noop

kind = os.environ.get("NOOP_QUEUE_TYPE", "classic")
app = celery.Celery("noop", broker=noop.URL)
app.conf.update(
    # What is asked of every side: durable messages, confirmed, acknowledged when done.
    task_default_delivery_mode="persistent",
    broker_transport_options={"confirm_publish": True},
    task_acks_late=True,
    # The least work for each task.
    task_ignore_result=True,
    worker_send_task_events=False,
    worker_disable_rate_limits=True,
    task_default_queue=noop.QUEUE,
    task_queues=[kombu.Queue(noop.QUEUE, durable=True, queue_arguments={"x-queue-type": kind})],
    # Quorum queues know no prefetch that a connection's consumers share.
    worker_detect_quorum_queues=True,
    broker_connection_retry_on_startup=True,
)


# As a program this module has another name than in a worker.
@app.task(name="noop.work")
def work(sent, padding):
    noop.ran(sent)


if __name__ == "__main__":
    # One producer for all: without, each call takes one from a pool.
    with app.producer_or_acquire() as producer:
        noop.publish(lambda sent: work.apply_async((sent, noop.PADDING), producer=producer))
