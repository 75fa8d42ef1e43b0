// The real Debezium connector for MySQL, embedded, with Confluent's AvroConverter over a registry inside this process.
//
// Arguments are connector properties, `name=value`. Each record becomes one line of JSON on file descriptor 3, in the
// order of the connector: topic, key and value (hex, without the registry's five bytes; null where there is none), the
// text of each schema as it would be registered, and the headers. A line {"streaming":true} follows the last record of
// the snapshot. The program ends when its standard input does, so it never outlives whoever started it.

import io.confluent.connect.avro.AvroConverter;
import io.confluent.kafka.schemaregistry.client.MockSchemaRegistryClient;
import io.debezium.embedded.Connect;
import io.debezium.engine.DebeziumEngine;
import io.debezium.engine.RecordChangeEvent;
import io.debezium.engine.format.ChangeEventFormat;
import java.io.BufferedOutputStream;
import java.io.FileOutputStream;
import java.io.PrintStream;
import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.util.Arrays;
import java.util.HexFormat;
import java.util.List;
import java.util.Map;
import java.util.Properties;
import org.apache.kafka.connect.data.Struct;
import org.apache.kafka.connect.header.Header;
import org.apache.kafka.connect.source.SourceRecord;
import org.apache.kafka.connect.storage.SimpleHeaderConverter;

public class Engine {
    private static final MockSchemaRegistryClient REGISTRY = new MockSchemaRegistryClient();
    // Connect's default.
    private static final SimpleHeaderConverter HEADERS = new SimpleHeaderConverter();
    private static final AvroConverter KEYS = converter(true);
    private static final AvroConverter VALUES = converter(false);
    // Not standard output, to which libraries print.
    private static final String RECORDS = "/dev/fd/3";
    private static PrintStream out;

    public static void main(String[] arguments) throws Exception {
        out = new PrintStream(new BufferedOutputStream(new FileOutputStream(RECORDS)), false, StandardCharsets.UTF_8);
        Thread watcher = new Thread(Engine::endWithStandardInput, "standard input");
        watcher.setDaemon(true);
        watcher.start();

        Properties properties = new Properties();
        for (String argument : arguments) {
            String[] parts = argument.split("=", 2);
            properties.setProperty(parts[0], parts[1]);
        }
        DebeziumEngine<RecordChangeEvent<SourceRecord>> engine = DebeziumEngine
                .create(ChangeEventFormat.of(Connect.class))
                .using(properties)
                .using((success, message, error) -> {
                    System.err.println("engine ended: " + message);
                    if (error != null) {
                        error.printStackTrace();
                    }
                    Runtime.getRuntime().halt(success ? 0 : 1);
                })
                .notifying(Engine::print)
                .build();
        engine.run();
    }

    private static void endWithStandardInput() {
        try {
            while (System.in.read() >= 0) {
            }
        }
        catch (java.io.IOException e) {
            // Nobody is there any more, which is the same as the end.
        }
        Runtime.getRuntime().halt(0);
    }

    private static AvroConverter converter(boolean isKey) {
        AvroConverter converter = new AvroConverter(REGISTRY);
        converter.configure(Map.of("schema.registry.url", "mock://records"), isKey);
        return converter;
    }

    private static void print(List<RecordChangeEvent<SourceRecord>> events,
                              DebeziumEngine.RecordCommitter<RecordChangeEvent<SourceRecord>> committer)
            throws InterruptedException {
        for (RecordChangeEvent<SourceRecord> event : events) {
            SourceRecord record = event.record();
            try {
                out.println(json(record));
                if (isLastOfSnapshot(record)) {
                    out.println("{\"streaming\":true}");
                }
            }
            catch (Exception e) {
                // The record is named, and the comparison misses it.
                System.err.println("not converted: " + record.topic() + " " + record.value());
                e.printStackTrace();
                Runtime.getRuntime().halt(1);
            }
            committer.markProcessed(event);
        }
        out.flush();
        committer.markBatchFinished();
    }

    private static boolean isLastOfSnapshot(SourceRecord record) {
        return record.value() instanceof Struct envelope
                && envelope.schema().field("source") != null
                && "last".equals(envelope.getStruct("source").getString("snapshot"));
    }

    private static String json(SourceRecord record) throws Exception {
        StringBuilder line = new StringBuilder("{\"topic\":").append(quoted(record.topic()));
        datum(line, "key", KEYS.fromConnectData(record.topic(), record.keySchema(), record.key()));
        datum(line, "value", VALUES.fromConnectData(record.topic(), record.valueSchema(), record.value()));
        line.append(",\"headers\":[");
        String separator = "";
        for (Header header : record.headers()) {
            byte[] value = HEADERS.fromConnectHeader(record.topic(), header.key(), header.schema(), header.value());
            line.append(separator).append("[").append(quoted(header.key())).append(",\"");
            line.append(HexFormat.of().formatHex(value)).append("\"]");
            separator = ",";
        }
        return line.append("]}").toString();
    }

    private static void datum(StringBuilder line, String name, byte[] framed) throws Exception {
        line.append(",\"").append(name).append("\":");
        if (framed == null) {
            line.append("null,\"").append(name).append("_schema\":null");
            return;
        }
        int id = ByteBuffer.wrap(framed, 1, 4).getInt();
        byte[] datum = Arrays.copyOfRange(framed, 5, framed.length);
        line.append('"').append(HexFormat.of().formatHex(datum)).append('"');
        line.append(",\"").append(name).append("_schema\":");
        line.append(quoted(REGISTRY.getSchemaById(id).canonicalString()));
    }

    private static String quoted(String text) {
        StringBuilder quoted = new StringBuilder("\"");
        for (int i = 0; i < text.length(); i++) {
            char c = text.charAt(i);
            if (c == '"' || c == '\\') {
                quoted.append('\\').append(c);
            }
            else if (c < ' ') {
                quoted.append(String.format("\\u%04x", (int) c));
            }
            else {
                quoted.append(c);
            }
        }
        return quoted.append('"').toString();
    }
}
