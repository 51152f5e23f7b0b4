"""Accounts: their private streams, what they missed, and what is known of them.

An account is kept apart from its venue's public data, with connections of its own: neither disturbs the other.
What it is told is published on `CHANNEL:VENUE:ACCOUNT` as `AccountEvent`:

* `order`: one event for each change of an order, never back from closed to open.
* `execution`: one for each fill, and for what else moves money by an execution (`type`), such as funding.
* `position`: one for each change of a position, whose newest event is how it stands.
* `balance`: one for each coin that changed, with the coin in `instrument` and in the field `coin`; and, where the venue
  has margin accounts, one for the totals of the account, with the field `account_type` and without `coin`. An event
  tells all of its coin, and nothing of the others: how the account stands is the newest event of each coin together.

What the stream tells has the origin `live`, what was asked for by REST `backfill`. An event that was fetched twice, as
after a restart, has the same `key` both times. One frame or answer gives all of its events one `trace_id`.
"""
