import java.util.List;
import java.util.Map;
import org.springframework.beans.factory.annotation.Autowired;
import org.springframework.beans.factory.annotation.Value;
import org.springframework.context.annotation.AnnotationConfigApplicationContext;
import org.springframework.context.support.PropertySourcesPlaceholderConfigurer;
import org.springframework.core.env.MapPropertySource;
import org.springframework.http.converter.json.MappingJackson2HttpMessageConverter;
import org.springframework.stereotype.Component;
import org.springframework.web.client.HttpStatusCodeException;
import org.springframework.web.client.RestTemplate;
import shop.client.ApiClient;
import shop.client.model.ReturnsPrediction;
import shop.client.model.ReturnsPredictions;
import shop.client.model.ReturnsRow;
import shop.client.model.ReturnsRows;

/** A bean of Spring that asks the shop of {@code mainspring new shop}, in the classes that are generated from its description. */
@Component
public class AskWithSpring {
    private final RestTemplate http;
    private final String url;

    @Autowired
    public AskWithSpring(RestTemplate http, @Value("${shop.url}") String url) {
        this.http = http;
        this.url = url;
    }

    public ReturnsPrediction one(ReturnsRow row) {
        return http.postForObject(url + "/endpoint/returns", row, ReturnsPrediction.class);
    }

    public ReturnsPredictions many(List<ReturnsRow> rows) {
        ReturnsRows body = new ReturnsRows().rows(rows);
        return http.postForObject(url + "/endpoint/returns/batch", body, ReturnsPredictions.class);
    }

    /** What Spring Boot does at its start, by hand: shop.url is a property, and the template is a bean. */
    public static void main(String[] arguments) {
        try (AnnotationConfigApplicationContext context = new AnnotationConfigApplicationContext()) {
            Map<String, Object> properties = Map.of("shop.url", arguments[0]);
            context.getEnvironment().getPropertySources().addFirst(new MapPropertySource("arguments", properties));
            var json = new MappingJackson2HttpMessageConverter(ApiClient.createDefaultObjectMapper());
            context.getBeanFactory().registerSingleton("http", new RestTemplate(List.of(json)));
            context.register(PropertySourcesPlaceholderConfigurer.class, AskWithSpring.class);
            context.refresh();
            ask(context.getBean(AskWithSpring.class));
        }
    }

    private static void ask(AskWithSpring shop) {
        ReturnsRow row = new ReturnsRow().customer("c1").amount(12.5);
        ReturnsPrediction one = shop.one(row);
        System.out.println(one.getModel() + " " + one.getPrediction() + " " + one.getScore());
        System.out.println(shop.many(List.of(row, row)).getPredictions().get(1).getScore());
        try {
            shop.one(new ReturnsRow().customer("c1").amount(Double.NaN));
        } catch (HttpStatusCodeException refused) {
            System.out.println(refused.getStatusCode().value());
        }
    }
}
