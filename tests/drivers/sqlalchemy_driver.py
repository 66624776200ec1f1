"""SQLAlchemy 2 over psycopg2, psycopg 3 and asyncpg: what it sees is the same whatever it is connected to."""

import asyncio
import datetime
import decimal
import os
import ssl
import uuid

import sqlalchemy as sa
from sqlalchemy import event, orm
from sqlalchemy.dialects import postgresql
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine

import features
from features import say

SHOW = sa.text("SELECT current_setting('TimeZone'), current_setting('search_path'), current_user")


class Base(orm.DeclarativeBase):
    pass


class Author(Base):
    __tablename__ = "author"
    id: orm.Mapped[int] = orm.mapped_column(primary_key=True)
    name: orm.Mapped[str] = orm.mapped_column(unique=True)
    mood: orm.Mapped[str | None] = orm.mapped_column(sa.Enum("sad", "happy", name="mood"))
    tags: orm.Mapped[list[str] | None] = orm.mapped_column(postgresql.ARRAY(sa.Text))
    facts: orm.Mapped[dict | None] = orm.mapped_column(postgresql.JSONB)
    price: orm.Mapped[decimal.Decimal | None] = orm.mapped_column(sa.Numeric(10, 4))
    born: orm.Mapped[datetime.datetime | None] = orm.mapped_column(sa.DateTime(timezone=True))
    token: orm.Mapped[uuid.UUID | None]
    picture: orm.Mapped[bytes | None]
    books: orm.Mapped[list["Book"]] = orm.relationship(back_populates="author", order_by="Book.id")


class Book(Base):
    __tablename__ = "book"
    id: orm.Mapped[int] = orm.mapped_column(primary_key=True)
    title: orm.Mapped[str]
    author_id: orm.Mapped[int] = orm.mapped_column(sa.ForeignKey("author.id"))
    author: orm.Mapped[Author] = orm.relationship(back_populates="books")


def authors():
    return [
        Author(name=f"author {n}", mood="happy" if n % 2 else None, tags=["a", f"ü{n}"], facts={"n": [n, None]},
               price=decimal.Decimal("12.3400"), born=datetime.datetime(2024, 2, 29, n, tzinfo=datetime.timezone.utc),
               token=uuid.UUID(int=n), picture=bytes([0, 255, n]),
               books=[Book(title=f"book {n} {m}") for m in range(3)])
        for n in range(5)
    ]


def say_author(author):
    born = author.born and author.born.astimezone(datetime.timezone.utc)
    say((author.id, author.name, author.mood, author.tags, author.facts, author.price, born, author.token, author.picture))


def use(session):
    """An application's life, in calls that the synchronous and the asynchronous session have in common."""
    session.add_all(authors())
    session.commit()
    for author in session.scalars(sa.select(Author).order_by(Author.id).options(orm.selectinload(Author.books))):
        say_author(author)
        say([book.title for book in author.books])
    session.rollback()
    try:
        session.add(Author(name="author 1"))
        session.flush()
    except sa.exc.IntegrityError as error:
        say(type(error).__name__, str(error.orig).splitlines()[0].split(": ")[-1])
        session.rollback()
    with session.begin_nested():
        session.add(Author(name="nested"))
    try:
        with session.begin_nested():
            session.add(Author(name="nested"))
    except sa.exc.IntegrityError as error:
        say(type(error).__name__)
    session.commit()
    say(session.scalar(sa.select(sa.func.count()).select_from(Author)))
    say(session.execute(sa.insert(Author).values([{"name": "many"}, {"name": "more"}]).returning(Author.name)).all())
    upsert = postgresql.insert(Author).values(name="many", mood="sad")
    session.execute(upsert.on_conflict_do_update(index_elements=["name"], set_={"mood": "happy"}))
    session.commit()
    say(session.execute(sa.select(Author.name, Author.mood).where(Author.name == "many")).one())
    author = session.scalars(sa.select(Author).where(Author.name == "more").with_for_update()).one()
    author.tags = ["locked"]
    session.commit()
    say(session.execute(sa.update(Author).where(Author.mood.is_(None)).values(mood="sad")).rowcount)
    say(session.execute(sa.delete(Book).where(Book.title.like("book 4%"))).rowcount)
    session.rollback()
    say(session.execute(sa.select(Author.mood, sa.func.count()).group_by(Author.mood).order_by(Author.mood)).all())
    session.execute(sa.text("SET LOCAL TimeZone = 'Asia/Tokyo'"))
    say(session.execute(SHOW).one())
    session.rollback()
    say(session.execute(SHOW).one())
    # insertmanyvalues
    session.execute(sa.insert(Book), [{"title": f"bulk {n}", "author_id": 1} for n in range(2500)])
    books = session.scalars(sa.insert(Book).returning(Book.title, sort_by_parameter_order=True),
                            [{"title": f"sorted {n}", "author_id": 1} for n in range(1200)]).all()
    say(len(books), books[0], books[-1])
    session.commit()
    say(session.scalar(sa.select(sa.func.count()).select_from(Book)))


def url(driver):
    return sa.URL.create(f"postgresql+{driver}")


def engine(driver, **options):
    return sa.create_engine(url(driver), **options)


def for_driver(driver):
    def connecting():
        own = engine(driver)
        with own.connect() as connection:
            say(own.dialect.server_version_info[0], own.dialect.default_schema_name, own.dialect.name)
            say(connection.execute(SHOW).one(), connection.dialect.get_isolation_level(connection.connection.dbapi_connection))
        own.dispose()

    def orm_session():
        own = engine(driver)
        Base.metadata.drop_all(own)
        Base.metadata.create_all(own)
        with orm.Session(own) as session:
            use(session)
        own.dispose()

    def reflection():
        own = engine(driver)
        metadata = sa.MetaData()
        metadata.reflect(own)
        for name in ("author", "book", "driver_seed"):
            table = metadata.tables[name]
            say(name, [(column.name, str(column.type)) for column in table.columns], sorted(str(c.name) for c in table.constraints))
        inspector = sa.inspect(own)
        say(inspector.get_schema_names(), inspector.get_enums(), inspector.get_unique_constraints("author"))
        own.dispose()

    def isolation_levels():
        own = engine(driver, pool_size=1, max_overflow=0)
        for level in ("READ COMMITTED", "REPEATABLE READ", "SERIALIZABLE", "AUTOCOMMIT"):
            for read_only in (False,) if level == "AUTOCOMMIT" else (False, True):
                options = {"isolation_level": level, "postgresql_readonly": read_only}
                with own.connect().execution_options(**options) as connection:
                    say(level, read_only, connection.execute(sa.text(
                        "SELECT current_setting('transaction_isolation'), count(*) FROM author")).one())
                    if level != "AUTOCOMMIT":
                        say(connection.execute(sa.text("SHOW transaction_read_only")).one())
        with own.connect() as connection:
            say(connection.execute(sa.text("SHOW transaction_isolation")).one(), connection.execute(sa.text("SHOW transaction_read_only")).one())
        own.dispose()

    def pool_reset():
        own = engine(driver, pool_size=1, max_overflow=0, pool_pre_ping=True)

        @event.listens_for(own, "connect")
        def on_connect(connection, _):
            cursor = connection.cursor()
            cursor.execute("SET SESSION TimeZone = 'Asia/Tokyo'")
            cursor.close()
            connection.commit()

        for _ in range(3):
            with own.connect() as connection:
                say(connection.execute(SHOW).one())
                connection.execute(sa.text("SET search_path = pg_catalog"))
                say(connection.execute(SHOW).one())
        with own.begin() as connection:
            connection.execute(sa.text("SET search_path = pg_catalog, public"))
        with own.connect() as connection:
            say(connection.execute(SHOW).one())
        own.dispose()

    def streaming():
        own = engine(driver)
        with own.connect() as connection:
            rows = connection.execution_options(yield_per=100).execute(sa.text("SELECT id FROM driver_seed ORDER BY 1"))
            say([len(part) for part in rows.partitions()][:3])
            say(connection.scalar(sa.text("SELECT count(*) FROM driver_seed")))
        own.dispose()

    def two_phase():
        own = engine(driver)
        with own.connect() as connection:
            connection.execute(sa.text("TRUNCATE driver_test"))
            connection.commit()
            for commits in (True, False):
                transaction = connection.begin_twophase(f"{driver} {os.environ['PGDATABASE']} {commits}")
                connection.execute(sa.text(f"INSERT INTO driver_test VALUES ({int(commits)})"))
                transaction.prepare()
                transaction.commit() if commits else transaction.rollback()
            say(connection.execute(sa.text("SELECT * FROM driver_test")).all())
        own.dispose()

    all_features = [connecting, orm_session, reflection, isolation_levels, pool_reset, streaming]
    # asyncpg and SQLAlchemy do it for no others.
    return all_features + [two_phase]


async def asyncpg():
    context = ssl.create_default_context(cafile=os.environ["PGSSLROOTCERT"])
    place = sa.URL.create("postgresql+asyncpg", os.environ["PGUSER"], os.environ["PGPASSWORD"], os.environ["PGHOST"],
                          int(os.environ["PGPORT"]), os.environ["PGDATABASE"])
    own = create_async_engine(place, connect_args={"ssl": context}, pool_size=2)
    async with own.begin() as connection:
        await connection.run_sync(Base.metadata.drop_all)
        await connection.run_sync(Base.metadata.create_all)
    async with async_sessionmaker(own)() as session:
        await session.run_sync(use)
    for level in ("REPEATABLE READ", "SERIALIZABLE", "AUTOCOMMIT"):
        async with own.connect() as connection:
            await connection.execution_options(isolation_level=level, postgresql_readonly=True)
            say(level, (await connection.execute(sa.text("SELECT current_setting('transaction_isolation'), count(*) FROM author"))).one())
    async with own.connect() as connection:
        rows = await connection.stream(sa.text("SELECT id FROM driver_seed ORDER BY 1"), execution_options={"yield_per": 100})
        say(sum([row.id async for row in rows]))

    async def work(number):
        async with own.begin() as connection:
            await connection.execute(sa.text("SELECT set_config('work_mem', :size, true)"), {"size": f"{number + 1}MB"})
            return (await connection.execute(sa.text("SHOW work_mem"))).scalar()

    say(await asyncio.gather(*(work(number) for number in range(10))))
    await own.dispose()


if __name__ == "__main__":
    for name in ("psycopg2", "psycopg"):
        features.FEATURES = for_driver(name)
        features.run(f"{name}_")
    features.FEATURES = [asyncpg]
    features.run()
