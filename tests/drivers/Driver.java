import java.io.ByteArrayOutputStream;
import java.io.StringReader;
import java.math.BigDecimal;
import java.nio.charset.StandardCharsets;
import java.sql.*;
import java.time.*;
import java.util.*;
import java.util.concurrent.*;
import org.postgresql.PGConnection;
import org.postgresql.PGNotification;
import org.postgresql.largeobject.LargeObject;
import org.postgresql.largeobject.LargeObjectManager;
import org.postgresql.util.PSQLException;
import org.postgresql.util.ServerErrorMessage;
import org.postgresql.xa.PGXADataSource;

/** pgjdbc: what it sees is the same whatever it is connected to. Arguments are names of features; none means all. */
public class Driver {
    interface Feature {
        void run() throws Exception;
    }

    static final Map<String, Feature> FEATURES = new LinkedHashMap<>();

    public static void main(String[] names) {
        FEATURES.put("connecting", Driver::connecting);
        FEATURES.put("types", Driver::types);
        FEATURES.put("prepare_thresholds", Driver::prepareThresholds);
        FEATURES.put("changed_result_type", Driver::changedResultType);
        FEATURES.put("batches", Driver::batches);
        FEATURES.put("generated_keys", Driver::generatedKeys);
        FEATURES.put("fetch_size", Driver::fetchSize);
        FEATURES.put("updatable_results", Driver::updatableResults);
        FEATURES.put("statements", Driver::statements);
        FEATURES.put("errors", Driver::errors);
        FEATURES.put("settings", Driver::settings);
        FEATURES.put("transactions", Driver::transactions);
        FEATURES.put("read_only_modes", Driver::readOnlyModes);
        FEATURES.put("autosave", Driver::autosave);
        FEATURES.put("calls", Driver::calls);
        FEATURES.put("metadata", Driver::metadata);
        FEATURES.put("copy", Driver::copy);
        FEATURES.put("notifications", Driver::notifications);
        FEATURES.put("large_objects", Driver::largeObjects);
        FEATURES.put("cancelling", Driver::cancelling);
        FEATURES.put("session_objects", Driver::sessionObjects);
        FEATURES.put("two_phase_commit", Driver::twoPhaseCommit);
        Set<String> wanted = Set.of(names);
        FEATURES.forEach((name, feature) -> {
            if (!wanted.isEmpty() && !wanted.contains(name)) return;
            System.out.println("== " + name);
            try {
                feature.run();
            } catch (Exception error) {
                say("FAILED", error);
                if (!wanted.isEmpty()) error.printStackTrace();
            }
        });
        System.exit(0);
    }

    static void say(Object... values) {
        StringJoiner line = new StringJoiner(" ");
        for (Object value : values) {
            line.add(value instanceof byte[] bytes ? Arrays.toString(bytes)
                : value instanceof Object[] objects ? Arrays.deepToString(objects)
                : value instanceof int[] numbers ? Arrays.toString(numbers) : String.valueOf(value));
        }
        System.out.println(line.toString().replaceAll("process \\d+", "process N"));
    }

    static void sayError(SQLException error) {
        ServerErrorMessage server = error instanceof PSQLException own ? own.getServerErrorMessage() : null;
        if (server == null) {
            say(error.getClass().getSimpleName(), error.getSQLState(), error.getMessage());
            return;
        }
        say(server.getSeverity(), server.getSQLState(), server.getMessage(), server.getDetail(), server.getHint(),
            server.getPosition(), server.getWhere(), server.getTable(), server.getColumn(), server.getConstraint(),
            server.getRoutine());
    }

    static Connection connect(String... options) throws SQLException {
        Map<String, String> env = System.getenv();
        Properties properties = new Properties();
        properties.setProperty("user", env.get("PGUSER"));
        properties.setProperty("password", env.get("PGPASSWORD"));
        properties.setProperty("sslmode", env.get("PGSSLMODE"));
        properties.setProperty("sslrootcert", env.get("PGSSLROOTCERT"));
        for (int i = 0; i < options.length; i += 2) properties.setProperty(options[i], options[i + 1]);
        String place = env.get("PGHOST") + ":" + env.get("PGPORT") + "/" + env.get("PGDATABASE");
        return DriverManager.getConnection("jdbc:postgresql://" + place, properties);
    }

    static Connection withEmptyTable(String... options) throws SQLException {
        Connection connection = connect(options);
        execute(connection, "TRUNCATE driver_test");
        return connection;
    }

    static void execute(Connection connection, String sql) throws SQLException {
        try (Statement statement = connection.createStatement()) {
            statement.execute(sql);
        }
    }

    static String rows(ResultSet results) throws SQLException {
        StringJoiner rows = new StringJoiner("; ");
        int columns = results.getMetaData().getColumnCount();
        while (results.next()) {
            StringJoiner row = new StringJoiner(", ");
            for (int column = 1; column <= columns; column++) {
                Object value = results.getObject(column);
                row.add(value instanceof byte[] bytes ? Arrays.toString(bytes) : String.valueOf(value));
            }
            rows.add(row.toString());
        }
        return rows.toString();
    }

    static String query(Connection connection, String sql, Object... parameters) throws SQLException {
        try (PreparedStatement statement = connection.prepareStatement(sql)) {
            for (int i = 0; i < parameters.length; i++) statement.setObject(i + 1, parameters[i]);
            return rows(statement.executeQuery());
        }
    }

    static void refused(Connection connection, String sql) {
        try (Statement statement = connection.createStatement()) {
            say(sql, statement.execute(sql));
        } catch (SQLException error) {
            sayError(error);
        }
    }

    static void connecting() throws Exception {
        try (Connection connection = connect("ApplicationName", "own", "currentSchema", "pg_catalog,public",
                "options", "-c statement_timeout=12345", "assumeMinServerVersion", "12")) {
            for (int i = 0; i < 3; i++) {
                say(query(connection, "SELECT current_setting('application_name'), current_setting('search_path'), "
                    + "current_setting('extra_float_digits'), current_setting('statement_timeout'), current_setting('DateStyle')"));
            }
            Map<String, String> statuses = new TreeMap<>(connection.unwrap(PGConnection.class).getParameterStatuses());
            statuses.remove("in_hot_standby");
            say(statuses);
            connection.setClientInfo("ApplicationName", "another");
            say(connection.getClientInfo("ApplicationName"), query(connection, "SHOW application_name"));
            say(connection.isValid(5), connection.getSchema(), connection.getCatalog() != null);
        }
        try (Connection connection = connect("readOnly", "true")) {
            refused(connection, "INSERT INTO driver_test VALUES (1)");
            say(query(connection, "SELECT count(*) FROM driver_seed"));
        }
    }

    static void types() throws Exception {
        for (String threshold : List.of("0", "1", "-1")) {
            for (String mode : List.of("extended", "extendedForPrepared", "simple")) {
                if (mode.equals("simple") && !threshold.equals("0")) continue;
                try (Connection connection = connect("prepareThreshold", threshold, "preferQueryMode", mode)) {
                    say(threshold, mode);
                    for (int i = 0; i < 2; i++) {
                        say(query(connection, "SELECT ?::bool, ?::int2, ?, ?, ?::float4, ?, ?, ?, ?", true, 7, 8, 1L << 40, 1.5f,
                            Double.NEGATIVE_INFINITY, new BigDecimal("123.4500"), "naïve ' \\ \u4e16\ud83d\ude00",
                            // It cannot write these as text.
                            mode.equals("simple") ? null : new byte[] {0, -1}));
                        say(query(connection, "SELECT ?::date, ?::time, ?::timestamp, ?::timestamptz, ?::uuid, ?::json, ?::int",
                            LocalDate.of(2024, 2, 29), LocalTime.of(1, 2, 3), LocalDateTime.of(2024, 2, 29, 12, 0),
                            OffsetDateTime.of(2024, 2, 29, 12, 0, 0, 0, ZoneOffset.UTC), new UUID(0, 7), "{\"a\": [1, null]}", null));
                        say(query(connection, "SELECT '{1,NULL}'::int[], '{{a,b},{c,\"d,e\"}}'::text[], '(1,2)'::point, "
                            + "'1 day'::interval, '[1,5)'::int4range, '10.0.0.0/8'::cidr, 'x'::char(3), 1::oid, B'101', '$1.50'::money, "
                            + "'a=>b'::text, xmlparse(content '<a/>')::text, NULL::jsonb, '1e30'::numeric, 'NaN'::float8"));
                        try (PreparedStatement statement = connection.prepareStatement("SELECT ?::text[], cardinality(?::int[])")) {
                            statement.setArray(1, connection.createArrayOf("text", new Object[] {"a", null, "c\"d"}));
                            statement.setArray(2, connection.createArrayOf("int4", new Object[] {1, 2}));
                            say(rows(statement.executeQuery()));
                        }
                    }
                }
            }
        }
    }

    static void prepareThresholds() throws Exception {
        for (String threshold : List.of("1", "5")) {
            try (Connection connection = connect("prepareThreshold", threshold, "preparedStatementCacheQueries", "3");
                    PreparedStatement statement = connection.prepareStatement("SELECT line FROM driver_seed WHERE id = ?")) {
                for (int i = 0; i < 12; i++) {
                    statement.setInt(1, i);
                    say(i, rows(statement.executeQuery()));
                }
                // The type changes, so it is parsed again.
                statement.setLong(1, 5);
                say(rows(statement.executeQuery()));
                for (int i = 0; i < 20; i++) say(query(connection, "SELECT id + " + i % 5 + " FROM driver_seed WHERE id = ?", i));
                execute(connection, "DEALLOCATE ALL");
                try {
                    statement.setInt(1, 6);
                    say(rows(statement.executeQuery()));
                } catch (SQLException error) {
                    sayError(error);
                }
                say(rows(statement.executeQuery()));
                execute(connection, "DISCARD ALL");
                say(query(connection, "SELECT id FROM driver_seed WHERE id = ?", 4));
            }
        }
    }

    static void changedResultType() throws Exception {
        try (Connection connection = connect("prepareThreshold", "1"); Connection other = connect()) {
            execute(connection, "CREATE TABLE changes (a int); INSERT INTO changes VALUES (1)");
            say(query(connection, "/* causeway: primary */ SELECT * FROM changes"));
            execute(other, "ALTER TABLE changes ADD b text DEFAULT 'new'");
            // The driver prepares again by itself.
            say(query(connection, "/* causeway: primary */ SELECT * FROM changes"));
            say(query(connection, "/* causeway: primary */ SELECT * FROM changes"));
        }
    }

    static void batches() throws Exception {
        for (String rewrite : List.of("false", "true")) {
            try (Connection connection = withEmptyTable("reWriteBatchedInserts", rewrite)) {
                for (boolean autocommit : new boolean[] {true, false}) {
                    connection.setAutoCommit(autocommit);
                    try (PreparedStatement statement = connection.prepareStatement("INSERT INTO driver_test VALUES (?, ?)")) {
                        for (int i = 0; i < 300; i++) {
                            statement.setInt(1, i + (autocommit ? 0 : 1000));
                            statement.setString(2, "line " + i);
                            statement.addBatch();
                        }
                        say(Arrays.stream(statement.executeBatch()).distinct().toArray());
                        for (int i = 2000; i < 2005; i++) {
                            statement.setInt(1, i == 2003 ? 1 : i);
                            statement.setString(2, "twice");
                            statement.addBatch();
                        }
                        statement.executeBatch();
                    } catch (BatchUpdateException error) {
                        say(error.getSQLState(), error.getUpdateCounts());
                    }
                    if (!autocommit) connection.rollback();
                    say(query(connection, "SELECT count(*), max(id) FROM driver_test"));
                    if (!autocommit) connection.commit();
                }
                connection.setAutoCommit(true);
                try (Statement statement = connection.createStatement()) {
                    statement.addBatch("INSERT INTO driver_test VALUES (5000, 'a')");
                    statement.addBatch("UPDATE driver_test SET line = 'b' WHERE id < 10");
                    statement.addBatch("SET TimeZone = 'Asia/Tokyo'");
                    say(statement.executeBatch());
                }
                say(query(connection, "SELECT count(*) FROM driver_test WHERE line = 'b'"));
            }
        }
    }

    static void generatedKeys() throws Exception {
        try (Connection connection = connect()) {
            execute(connection, "CREATE TABLE keyed (id serial PRIMARY KEY, line text)");
            try (PreparedStatement statement =
                    connection.prepareStatement("INSERT INTO keyed (line) VALUES (?)", Statement.RETURN_GENERATED_KEYS)) {
                for (int i = 0; i < 7; i++) {
                    statement.setString(1, "line " + i);
                    statement.executeUpdate();
                    say(rows(statement.getGeneratedKeys()), query(connection, "SELECT currval('keyed_id_seq'), lastval()"));
                }
                for (int i = 0; i < 3; i++) {
                    statement.setString(1, "batch " + i);
                    statement.addBatch();
                }
                say(statement.executeBatch());
                say(rows(statement.getGeneratedKeys()));
            }
        }
    }

    static void fetchSize() throws Exception {
        try (Connection connection = connect()) {
            connection.setAutoCommit(false);
            for (int size : new int[] {1, 50, 1999, 2000, 5000}) {
                try (PreparedStatement statement = connection.prepareStatement("SELECT id FROM driver_seed WHERE id >= ? ORDER BY 1")) {
                    statement.setFetchSize(size);
                    statement.setInt(1, size == 1 ? 1950 : 0);
                    long sum = 0;
                    try (ResultSet results = statement.executeQuery()) {
                        while (results.next()) {
                            sum += results.getInt(1);
                            // Another portal in between.
                            if (results.getInt(1) == 1960) say(query(connection, "SELECT line FROM driver_seed WHERE id = ?", 7));
                        }
                    }
                    say(size, sum);
                }
            }
            try (PreparedStatement statement = connection.prepareStatement("SELECT id FROM driver_seed ORDER BY 1")) {
                statement.setMaxRows(3);
                say(rows(statement.executeQuery()));
                connection.commit();
            }
            connection.setReadOnly(true);
            try (Statement statement = connection.createStatement()) {
                statement.setFetchSize(100);
                say(rows(statement.executeQuery("SELECT sum(id) FROM driver_seed")));
                ResultSet results = statement.executeQuery("SELECT id FROM driver_seed ORDER BY 1");
                for (int i = 0; i < 150; i++) results.next();
                connection.commit();
                try {
                    while (results.next()) results.getInt(1);
                } catch (SQLException error) {
                    sayError(error);
                }
            }
            connection.rollback();
        }
    }

    static void updatableResults() throws Exception {
        try (Connection connection = withEmptyTable()) {
            execute(connection, "INSERT INTO driver_test VALUES (1, 'a'), (2, 'b')");
            try (Statement statement = connection.createStatement(ResultSet.TYPE_SCROLL_INSENSITIVE, ResultSet.CONCUR_UPDATABLE);
                    ResultSet results = statement.executeQuery("SELECT id, line FROM driver_test ORDER BY id")) {
                results.last();
                results.updateString(2, "changed");
                results.updateRow();
                results.moveToInsertRow();
                results.updateInt(1, 3);
                results.insertRow();
            }
            say(query(connection, "SELECT * FROM driver_test ORDER BY id"));
        }
    }

    static void statements() throws Exception {
        try (Connection connection = withEmptyTable(); Statement statement = connection.createStatement()) {
            boolean isResult = statement.execute("SELECT 1; INSERT INTO driver_test VALUES (1, 'a'); SELECT 2 AS two; SHOW TimeZone");
            for (int count = 0; isResult || (count = statement.getUpdateCount()) >= 0; isResult = statement.getMoreResults()) {
                say(isResult ? rows(statement.getResultSet()) : count);
            }
            say(query(connection, "INSERT INTO driver_test VALUES (?, ?) RETURNING *", 2, "b"));
            say(statement.execute(""), statement.getUpdateCount(), statement.executeUpdate("UPDATE driver_test SET line = 'c'"));
            execute(connection, "DO $$ BEGIN RAISE NOTICE 'one'; END $$");
            statement.execute("DO $$ BEGIN RAISE NOTICE 'one'; RAISE WARNING 'two'; END $$");
            for (SQLWarning warning = statement.getWarnings(); warning != null; warning = warning.getNextWarning()) {
                say(warning.getSQLState(), warning.getMessage());
            }
            say(query(connection, "WITH gone AS (DELETE FROM driver_test RETURNING id) SELECT sum(id) FROM gone"));
            say(query(connection, "SELECT * FROM driver_seed WHERE id = 3 FOR UPDATE"), query(connection, "VALUES (1), (2)"));
        }
    }

    static void errors() throws Exception {
        try (Connection connection = connect()) {
            for (String sql : List.of("SELEKT 1", "SELECT nothing FROM driver_seed", "SELECT 1/0", "INSERT INTO driver_seed VALUES (1)",
                    "SELECT 1; SELECT 1/0; SELECT 2", "DROP TABLE pg_class", "SELECT 'ü', nothing", "SET TimeZone = 'Nowhere'",
                    "DO $$ BEGIN RAISE EXCEPTION 'own' USING ERRCODE = 'AB123', HINT = 'a hint', DETAIL = 'a detail'; END $$")) {
                refused(connection, sql);
            }
            for (int i = 0; i < 7; i++) {
                try {
                    say(query(connection, "SELECT 10 / ?", i % 2));
                } catch (SQLException error) {
                    sayError(error);
                }
            }
        }
    }

    static final String SHOW = "SELECT current_setting('TimeZone'), current_setting('search_path'), current_setting('work_mem'), current_user";

    static void settings() throws Exception {
        try (Connection connection = connect("prepareThreshold", "1")) {
            execute(connection, "SET TimeZone = 'Europe/Rome'");
            for (int i = 0; i < 3; i++) say(query(connection, SHOW), query(connection, "SELECT '2024-01-01 00:00+00'::timestamptz::text"));
            connection.setAutoCommit(false);
            execute(connection, "SET TimeZone = 'Asia/Tokyo'");
            execute(connection, "SET LOCAL work_mem = '7MB'");
            connection.setSchema("pg_catalog");
            say(query(connection, SHOW), connection.getSchema());
            connection.rollback();
            say(query(connection, SHOW));
            Savepoint savepoint = connection.setSavepoint("s");
            execute(connection, "SET TimeZone = 'Asia/Tokyo'");
            connection.rollback(savepoint);
            say(query(connection, "SELECT set_config('work_mem', ?, false)", "9MB"));
            connection.commit();
            connection.setAutoCommit(true);
            say(query(connection, SHOW));
            execute(connection, "SET ROLE other");
            say(query(connection, SHOW));
            refused(connection, "SELECT * FROM driver_seed");
            execute(connection, "RESET ALL");
            execute(connection, "RESET ROLE");
            say(query(connection, SHOW));
            // The driver does not allow what would break it.
            refused(connection, "SET client_encoding = 'LATIN1'");
            refused(connection, "SELECT 1");
        }
    }

    static void transactions() throws Exception {
        try (Connection connection = withEmptyTable()) {
            connection.setAutoCommit(false);
            execute(connection, "INSERT INTO driver_test VALUES (1, 'kept')");
            Savepoint savepoint = connection.setSavepoint();
            refused(connection, "INSERT INTO driver_test VALUES (1, 'twice')");
            refused(connection, "SELECT 1");
            connection.rollback(savepoint);
            connection.releaseSavepoint(savepoint);
            connection.commit();
            execute(connection, "DELETE FROM driver_test");
            connection.rollback();
            say(query(connection, "SELECT count(*) FROM driver_test"));
            connection.rollback();
            for (int level : new int[] {Connection.TRANSACTION_READ_COMMITTED, Connection.TRANSACTION_REPEATABLE_READ,
                    Connection.TRANSACTION_SERIALIZABLE}) {
                for (boolean readOnly : new boolean[] {false, true}) {
                    connection.setTransactionIsolation(level);
                    connection.setReadOnly(readOnly);
                    say(connection.getTransactionIsolation(), query(connection,
                        "SELECT current_setting('transaction_isolation'), current_setting('transaction_read_only'), count(*) FROM driver_test"));
                    connection.rollback();
                }
            }
        }
    }

    static void readOnlyModes() throws Exception {
        for (String mode : List.of("ignore", "transaction", "always")) {
            for (boolean autocommit : new boolean[] {true, false}) {
                try (Connection connection = withEmptyTable("readOnlyMode", mode)) {
                    connection.setAutoCommit(autocommit);
                    connection.setReadOnly(true);
                    say(mode, autocommit, query(connection, "SELECT current_setting('transaction_read_only'), count(*) FROM driver_seed"));
                    refused(connection, "INSERT INTO driver_test VALUES (1, 'a')");
                    if (!autocommit) connection.rollback();
                    connection.setReadOnly(false);
                    refused(connection, "INSERT INTO driver_test VALUES (2, 'a')");
                    if (!autocommit) connection.rollback();
                }
            }
        }
    }

    static void autosave() throws Exception {
        for (String autosave : List.of("always", "conservative")) {
            try (Connection connection = withEmptyTable("autosave", autosave)) {
                connection.setAutoCommit(false);
                execute(connection, "INSERT INTO driver_test VALUES (1, 'kept')");
                refused(connection, "INSERT INTO driver_test VALUES (1, 'twice')");
                refused(connection, "INSERT INTO driver_test VALUES (2, 'kept')");
                connection.commit();
                say(query(connection, "SELECT count(*) FROM driver_test"));
            } catch (SQLException error) {
                sayError(error);
            }
        }
    }

    static void calls() throws Exception {
        try (Connection connection = withEmptyTable()) {
            execute(connection, "CREATE FUNCTION twice(a int) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT 2 * a'; "
                + "CREATE FUNCTION adds(a int) RETURNS int LANGUAGE sql AS 'INSERT INTO driver_test VALUES (a) RETURNING id'; "
                + "CREATE FUNCTION opens() RETURNS refcursor LANGUAGE plpgsql AS $$ DECLARE c refcursor; BEGIN "
                + "OPEN c FOR SELECT id FROM driver_seed WHERE id < 5 ORDER BY 1; RETURN c; END $$; "
                + "CREATE PROCEDURE commits(a int) LANGUAGE plpgsql AS $$ BEGIN INSERT INTO driver_test VALUES (a); COMMIT; END $$");
            for (String name : List.of("twice", "adds")) {
                try (CallableStatement call = connection.prepareCall("{ ? = call " + name + "(?) }")) {
                    call.registerOutParameter(1, Types.INTEGER);
                    call.setInt(2, 21);
                    call.execute();
                    say(call.getInt(1));
                }
            }
            execute(connection, "CALL commits(5)");
            say(query(connection, "SELECT count(*) FROM driver_test"));
            connection.setAutoCommit(false);
            try (CallableStatement call = connection.prepareCall("{ ? = call opens() }")) {
                call.registerOutParameter(1, Types.REF_CURSOR);
                call.execute();
                say(rows((ResultSet) call.getObject(1)));
            }
            connection.commit();
        }
    }

    static void metadata() throws Exception {
        try (Connection connection = connect()) {
            DatabaseMetaData data = connection.getMetaData();
            say(data.getDatabaseProductVersion().split("\\.")[0], data.getMaxConnections() > 0, data.getSQLKeywords().length());
            try (ResultSet results = data.getColumns(null, "public", "driver_seed", null)) {
                while (results.next()) say(results.getString("COLUMN_NAME"), results.getString("TYPE_NAME"), results.getInt("NULLABLE"));
            }
            try (ResultSet results = data.getPrimaryKeys(null, "public", "driver_seed")) {
                while (results.next()) say(results.getString("PK_NAME"), results.getString("COLUMN_NAME"));
            }
            try (ResultSet results = data.getTables(null, "public", "driver%", new String[] {"TABLE"})) {
                while (results.next()) say(results.getString("TABLE_NAME"));
            }
            try (PreparedStatement statement = connection.prepareStatement("SELECT id, line FROM driver_seed WHERE id = ?")) {
                ResultSetMetaData columns = statement.getMetaData();
                say(columns.getColumnName(2), columns.getColumnTypeName(2), columns.getTableName(2), columns.isNullable(1));
                say(statement.getParameterMetaData().getParameterTypeName(1));
            }
            try (ResultSet results = data.getTypeInfo()) {
                int count = 0;
                while (results.next()) count++;
                say(count > 20);
            }
        }
    }

    static void copy() throws Exception {
        try (Connection connection = withEmptyTable()) {
            var copies = connection.unwrap(PGConnection.class).getCopyAPI();
            StringBuilder lines = new StringBuilder();
            for (int i = 0; i < 2000; i++) lines.append(i).append("\tline ").append(i).append('\n');
            say(copies.copyIn("COPY driver_test FROM STDIN", new StringReader(lines.toString())));
            ByteArrayOutputStream out = new ByteArrayOutputStream();
            say(copies.copyOut("COPY (SELECT * FROM driver_test ORDER BY id) TO STDOUT", out),
                out.toString(StandardCharsets.UTF_8).contentEquals(lines));
            out.reset();
            say(copies.copyOut("COPY (SELECT * FROM driver_test WHERE id < 3 ORDER BY 1) TO STDOUT (FORMAT binary)", out), out.toByteArray());
            try {
                copies.copyIn("COPY driver_test FROM STDIN", new StringReader("nonsense\n"));
            } catch (SQLException error) {
                sayError(error);
            }
            var in = copies.copyIn("COPY driver_test FROM STDIN");
            in.writeToCopy("9000\tnever\n".getBytes(StandardCharsets.UTF_8), 0, 11);
            in.cancelCopy();
            say(query(connection, "SELECT count(*) FROM driver_test"));
        }
    }

    static void notifications() throws Exception {
        try (Connection listener = connect(); Connection other = connect()) {
            execute(listener, "LISTEN letters");
            execute(other, "NOTIFY letters, 'it''s'");
            say(query(other, "SELECT pg_notify('letters', ?)", "ü"));
            List<String> heard = new ArrayList<>();
            PGConnection pg = listener.unwrap(PGConnection.class);
            while (heard.size() < 2) {
                PGNotification[] notes = pg.getNotifications(10_000);
                if (notes == null) break;
                for (PGNotification note : notes) heard.add(note.getName() + " " + note.getParameter());
            }
            say(heard);
            execute(listener, "UNLISTEN *");
            say(query(listener, "SELECT count(*) FROM pg_listening_channels()"));
        }
    }

    static void largeObjects() throws Exception {
        try (Connection connection = connect()) {
            connection.setAutoCommit(false);
            // It calls its functions by the protocol's function call.
            LargeObjectManager manager = connection.unwrap(PGConnection.class).getLargeObjectAPI();
            long oid = manager.createLO();
            try (LargeObject object = manager.open(oid, LargeObjectManager.WRITE)) {
                object.write("large\0object".getBytes(StandardCharsets.UTF_8));
            }
            try (LargeObject object = manager.open(oid)) {
                object.seek(5);
                say(object.read(100), object.size64(), object.tell64());
            }
            connection.commit();
            manager.delete(oid);
            try {
                manager.open(oid);
            } catch (SQLException error) {
                say(error.getSQLState());
            }
            connection.rollback();
            say(query(connection, "SELECT 1"));
        }
    }

    static void cancelling() throws Exception {
        try (Connection connection = connect(); Statement statement = connection.createStatement()) {
            for (int i = 0; i < 2; i++) {
                ScheduledExecutorService timer = Executors.newSingleThreadScheduledExecutor();
                // The first request may come before the statement.
                timer.scheduleAtFixedRate(() -> {
                    try {
                        statement.cancel();
                    } catch (SQLException error) {
                        say("FAILED", error);
                    }
                }, 200, 200, TimeUnit.MILLISECONDS);
                try {
                    statement.execute("SELECT pg_sleep(15)");
                } catch (SQLException error) {
                    sayError(error);
                }
                timer.shutdown();
                timer.awaitTermination(10, TimeUnit.SECONDS);
                say(query(connection, "SELECT count(*) FROM driver_seed"));
            }
            statement.setQueryTimeout(1);
            try {
                statement.execute("SELECT pg_sleep(15)");
            } catch (SQLException error) {
                sayError(error);
            }
            say(query(connection, "SELECT count(*) FROM driver_seed"));
        }
    }

    static void sessionObjects() throws Exception {
        try (Connection connection = withEmptyTable("prepareThreshold", "1"); Connection other = connect()) {
            execute(connection, "CREATE TEMP TABLE mine (id int)");
            for (int i = 0; i < 3; i++) {
                try (PreparedStatement statement = connection.prepareStatement("INSERT INTO mine VALUES (?)")) {
                    statement.setInt(1, i);
                    statement.executeUpdate();
                }
                say(query(connection, "SELECT count(*) FROM mine"));
            }
            execute(connection, "DROP TABLE mine");
            say(query(connection, "SELECT to_regclass('mine')"));
            say(query(connection, "SELECT pg_advisory_lock(?)", 7), query(other, "SELECT pg_try_advisory_lock(?)", 7));
            say(query(connection, "SELECT pg_advisory_unlock(?)", 7), query(other, "SELECT pg_try_advisory_lock(?)", 7));
            say(query(other, "SELECT pg_advisory_unlock_all()"));
            connection.setHoldability(ResultSet.HOLD_CURSORS_OVER_COMMIT);
            execute(connection, "DECLARE held CURSOR WITH HOLD FOR SELECT id FROM driver_seed ORDER BY 1");
            say(query(connection, "FETCH 2 FROM held"), query(connection, "SELECT count(*) FROM driver_seed"), query(connection, "FETCH 2 FROM held"));
            execute(connection, "CLOSE held");
            execute(connection, "PREPARE by_id (int) AS SELECT line FROM driver_seed WHERE id = $1");
            say(query(connection, "EXECUTE by_id (5)"), query(connection, "SELECT 1"), query(connection, "EXECUTE by_id (6)"));
            execute(connection, "DEALLOCATE by_id");
            refused(connection, "EXECUTE by_id (7)");
        }
    }

    static void twoPhaseCommit() throws Exception {
        Map<String, String> env = System.getenv();
        PGXADataSource source = new PGXADataSource();
        source.setServerNames(new String[] {env.get("PGHOST")});
        source.setPortNumbers(new int[] {Integer.parseInt(env.get("PGPORT"))});
        source.setDatabaseName(env.get("PGDATABASE"));
        source.setUser(env.get("PGUSER"));
        source.setPassword(env.get("PGPASSWORD"));
        source.setSslmode(env.get("PGSSLMODE"));
        source.setSslRootCert(env.get("PGSSLROOTCERT"));
        var xa = source.getXAConnection();
        try (Connection connection = xa.getConnection()) {
            execute(connection, "TRUNCATE driver_test");
            for (boolean commits : new boolean[] {true, false}) {
                var id = new Id((env.get("PGDATABASE") + commits).getBytes(StandardCharsets.UTF_8));
                xa.getXAResource().start(id, javax.transaction.xa.XAResource.TMNOFLAGS);
                execute(connection, "INSERT INTO driver_test VALUES (" + (commits ? 1 : 2) + ", 'two phases')");
                xa.getXAResource().end(id, javax.transaction.xa.XAResource.TMSUCCESS);
                say(xa.getXAResource().prepare(id));
                if (commits) xa.getXAResource().commit(id, false);
                else xa.getXAResource().rollback(id);
            }
            say(query(connection, "SELECT * FROM driver_test"));
        }
        xa.close();
    }

    record Id(byte[] name) implements javax.transaction.xa.Xid {
        public int getFormatId() {
            return 7;
        }

        public byte[] getGlobalTransactionId() {
            return name;
        }

        public byte[] getBranchQualifier() {
            return new byte[] {1};
        }
    }
}
