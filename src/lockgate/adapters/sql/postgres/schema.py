"""The tables of a PostgreSQL store, as numbered migrations. Each runs once, in one transaction, in this order.

Text is compared by code point (`COLLATE "C"`), as in every other store: with a language's own order, pages of keys
would come differently from one server to the next. Events, documents and receipts are bytes, kept as they were made.
"""

from __future__ import annotations

MIGRATIONS: tuple[bytes, ...] = (
    b"""
    CREATE TABLE events (
        seq bigint PRIMARY KEY,
        body bytea NOT NULL,
        hash bytea NOT NULL
    );
    CREATE FUNCTION events_append_only() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        IF TG_OP = 'INSERT' AND NEW.seq = (SELECT coalesce(max(seq), 0) + 1 FROM events) THEN
            RETURN NEW;
        END IF;
        RAISE EXCEPTION 'the journal is append-only' USING ERRCODE = 'integrity_constraint_violation';
    END $$;
    CREATE TRIGGER events_in_order BEFORE INSERT ON events
        FOR EACH ROW EXECUTE FUNCTION events_append_only();
    CREATE TRIGGER events_no_change BEFORE UPDATE OR DELETE OR TRUNCATE ON events
        FOR EACH STATEMENT EXECUTE FUNCTION events_append_only();
    CREATE TABLE head (
        one integer PRIMARY KEY CHECK (one = 1),
        seq bigint NOT NULL,
        hash bytea NOT NULL,
        frontier bytea NOT NULL
    );
    INSERT INTO head VALUES (1, 0, decode(repeat('00', 32), 'hex'), '');
    CREATE TABLE documents (
        kind text COLLATE "C" NOT NULL,
        key text COLLATE "C" NOT NULL,
        rev bigint NOT NULL,
        fold_version bigint NOT NULL,
        body bytea NOT NULL,
        parent text COLLATE "C" NOT NULL,
        state text COLLATE "C" NOT NULL,
        digest text COLLATE "C" NOT NULL,
        PRIMARY KEY (kind, key)
    );
    CREATE INDEX documents_by_parent ON documents (kind, parent, key);
    CREATE TABLE edges (
        source text COLLATE "C" NOT NULL,
        kind text COLLATE "C" NOT NULL,
        target text COLLATE "C" NOT NULL,
        PRIMARY KEY (source, kind, target)
    );
    CREATE INDEX edges_by_target ON edges (target);
    CREATE TABLE outbox (
        id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
        subject text COLLATE "C" NOT NULL,
        fence bigint NOT NULL,
        body bytea NOT NULL,
        attempts bigint NOT NULL DEFAULT 0,
        leased_until bigint NOT NULL DEFAULT 0
    );
    CREATE TABLE receipts (
        command_id text COLLATE "C" PRIMARY KEY,
        body bytea NOT NULL
    );
    """,
    # What is remembered beside the journal, because it is no decision: last uses, deliveries, counts.
    b"""
    CREATE TABLE credentials (
        id text COLLATE "C" PRIMARY KEY,
        last_used_at bigint NOT NULL
    );
    CREATE TABLE deliveries (
        subscription text COLLATE "C" NOT NULL,
        seq bigint NOT NULL,
        attempts bigint NOT NULL DEFAULT 0,
        next_at bigint NOT NULL DEFAULT 0,
        delivered_at bigint,
        detail text NOT NULL DEFAULT '',
        PRIMARY KEY (subscription, seq)
    );
    CREATE TABLE counters (
        name text COLLATE "C" PRIMARY KEY,
        n bigint NOT NULL
    );
    """,
    # Where blobs are at home, and who brought them when; the row of no digest says that it was filled.
    b"""
    CREATE TABLE homes (
        digest text COLLATE "C" NOT NULL,
        home text COLLATE "C" NOT NULL,
        brought_at bigint NOT NULL DEFAULT 0,
        PRIMARY KEY (digest, home)
    );
    CREATE INDEX homes_brought ON homes (brought_at) WHERE brought_at > 0;
    """,
)
