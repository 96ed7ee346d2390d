"""Where an engine says that its work can be looked up."""

import urllib.request


def test_serial_is_nowhere_to_be_seen(serial_engine):
    assert serial_engine.trace() == {}


def test_dask_names_its_scheduler_and_a_page_that_answers(dask_engine):
    trace = dask_engine.trace()
    assert trace["application_id"] == dask_engine.client.scheduler_info()["id"]
    assert urllib.request.urlopen(trace["dashboard"], timeout=10).status == 200


def test_spark_names_its_application(spark_engine):
    assert spark_engine.trace() == {"application_id": spark_engine.context.applicationId}  # and shows no page here
