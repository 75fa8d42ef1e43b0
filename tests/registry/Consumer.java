import io.confluent.kafka.serializers.KafkaAvroDeserializer;
import java.time.Duration;
import java.util.List;
import java.util.Map;
import org.apache.avro.generic.GenericRecord;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;

/**
 * Reads a topic as another service would, with Confluent's deserializer: BOOTSTRAP REGISTRY TOPIC COUNT. Prints for each
 * of COUNT records its operation and its row (null for a delete).
 */
public class Consumer {
  public static void main(String[] arguments) {
    Map<String, Object> settings =
        Map.of(
            "bootstrap.servers", arguments[0],
            "schema.registry.url", arguments[1],
            "group.id", "java-consumer",
            "auto.offset.reset", "earliest",
            "isolation.level", "read_committed",
            "key.deserializer", KafkaAvroDeserializer.class,
            "value.deserializer", KafkaAvroDeserializer.class);
    int wanted = Integer.parseInt(arguments[3]);
    int seen = 0;
    int silent = 0;
    try (KafkaConsumer<GenericRecord, GenericRecord> consumer = new KafkaConsumer<>(settings)) {
      consumer.subscribe(List.of(arguments[2]));
      while (seen < wanted && silent < 30) {
        silent++;
        for (ConsumerRecord<GenericRecord, GenericRecord> record : consumer.poll(Duration.ofSeconds(1))) {
          if (record.value() == null) continue;
          silent = 0;
          seen++;
          System.out.println(record.value().get("op") + " " + record.value().get("after"));
        }
      }
    }
    if (seen < wanted) {
      System.err.println("only " + seen + " of " + wanted + " records came");
      System.exit(1);
    }
  }
}
